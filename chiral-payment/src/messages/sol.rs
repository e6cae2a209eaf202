//! The words on the wire as Solidity types: their ABI encoding is what travels, their
//! EIP-712 hash is what is signed.
#![allow(missing_docs, unreachable_pub)]

alloy_sol_types::sol! {
    #[derive(Debug, PartialEq, Eq)]
    struct QuoteRequest {
        bytes32 cid;
        address payer;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Discount {
        uint64 fromBytes;
        uint256 pricePerMib;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Quote {
        bytes32 id;
        bytes32 cid;
        address payer;
        address payee;
        uint256 pricePerMib;
        uint64 freeBytes;
        Discount[] discounts;
        bytes32 answers;
        uint8 policy;
        uint256 creditLimit;
        uint64 prepayBytes;
        uint32 confirmations;
        uint64 chainId;
        bytes32 genesis;
        address batchPay;
        ChannelTerms channel;
        uint64 validUntil;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct ChannelTerms {
        address contractAt;
        uint32 challenge;
        uint32 windowFirst;
        uint32 windowCap;
        uint32 batchChunks;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct CounterOffer {
        bytes32 quote;
        address payer;
        uint256 pricePerMib;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Accept {
        bytes32 quote;
        address payer;
        address sessionKey;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Request {
        bytes32 agreement;
        uint64 counter;
        uint64 start;
        uint64 end;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Ack {
        bytes32 agreement;
        uint32 sequence;
        uint64 total;
        bytes ranges;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Notice {
        bytes32 agreement;
        uint32 sequence;
        uint64 bytesPaid;
        uint256 amount;
        bytes32 payment;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Receipt {
        bytes32 bill;
        address payer;
        address payee;
        bytes32 cid;
        uint64 bytesPaid;
        uint256 amount;
        bytes32 payment;
        uint64 time;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Accepted {
        bytes32 agreement;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Acked {
        bytes32 agreement;
        uint32 sequence;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Due {
        bytes32 agreement;
        uint256 amount;
        uint64 prepayBytes;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct NotYet {
        uint32 retryAfterMillis;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Ended {
        bytes32 agreement;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Refused {
        string reason;
    }
}
