// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BatchPay} from "BatchPay.sol";

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
