// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BatchPay} from "BatchPay.sol";
import {Channels} from "Channels.sol";

// Payees that do what they should not. They have no constructors: tests put their code into
// the first block.

/// Refuses every payment.
contract Refuser {
    receive() external payable {
        revert("no");
    }

    /// Has its credit sent to somebody else.
    function withdraw(BatchPay batch, address to) external {
        batch.withdraw(to);
    }

    /// Says anything to anybody, as the payee of a channel has to.
    function say(address to, bytes calldata words) external payable {
        (bool done, bytes memory answer) = to.call{value: msg.value}(words);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }
}

/// Uses up all gas that it gets.
contract Burner {
    receive() external payable {
        while (true) {}
    }
}

/// Reverts with a megabyte, which whoever copies it pays for.
contract Bomb {
    receive() external payable {
        assembly {
            revert(0, 20000)
        }
    }
}

/// Comes back into the contract while it is being paid.
contract Reentrant {
    BatchPay private batch;
    BatchPay.Leg[] private again;
    bool private refusing;
    uint256 public entered;

    function prepare(BatchPay batch_, bool refusing_) external {
        batch = batch_;
        refusing = refusing_;
    }

    /// Pays itself through the contract, and does so again from within.
    function pay(BatchPay.Leg[] calldata legs) external payable {
        delete again;
        for (uint256 i = 0; i < legs.length; ++i) {
            again.push(legs[i]);
        }
        batch.payBatch{value: msg.value}(legs);
    }

    function withdraw() external {
        refusing = false;
        batch.withdraw(address(this));
    }

    receive() external payable {
        if (refusing) revert("later");
        if (msg.sender != address(batch) || entered > 2) return;
        ++entered;
        try batch.withdraw(address(this)) {} catch {}
        if (again.length != 0) {
            try batch.payBatch{value: msg.value}(again) {} catch {}
        }
    }
}

/// A party of channels that comes back into the contract, with whatever it was told to say,
/// while it is being paid.
contract Returner {
    Channels private channels;
    bytes[] private words;
    uint256 public entered;
    uint256 public succeeded;

    function prepare(Channels channels_, bytes[] calldata words_) external {
        channels = channels_;
        delete words;
        for (uint256 i = 0; i < words_.length; ++i) {
            words.push(words_[i]);
        }
    }

    /// Says something to the contract.
    function say(bytes calldata words_) external payable {
        (bool done, bytes memory answer) = address(channels).call{value: msg.value}(words_);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }

    receive() external payable {
        if (msg.sender != address(channels)) return;
        for (uint256 i = 0; i < words.length; ++i) {
            (bool done,) = address(channels).call(words[i]);
            if (done) ++succeeded;
        }
        ++entered;
    }
}
