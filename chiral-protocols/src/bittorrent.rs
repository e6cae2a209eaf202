//! BitTorrent, on our own wire: public clients notice nothing but a good peer.
