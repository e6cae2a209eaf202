//! Frames and messages of the private protocol, from strangers.
#![no_main]

use bytes::BytesMut;
use chiral_protocols::private::{Frame, MAX_DATA, MAX_HEADER};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::take(&mut buffer) {
        assert!(frame.data.len() <= MAX_DATA);
        // What was understood is said again and understood as the same: in other words, perhaps.
        let Ok(head) = frame.head() else {
            continue;
        };
        assert!(head.len() <= MAX_HEADER + 3);
        let mut again = BytesMut::from(&head[..]);
        again.extend_from_slice(&frame.data);
        assert_eq!(Frame::take(&mut again).unwrap(), Some(frame));
        assert!(again.is_empty());
    }
});
