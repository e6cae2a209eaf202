// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title One transaction that pays many bills, each of them once.
/// @notice Every leg has a nonce of its payer's. A nonce is used once, for ever: a leg that
/// comes again is skipped and its amount goes back, so a payer who does not know what became
/// of a transaction may send the same legs in another one.
/// @dev No owner, no upgrade, no fee. What a payer sends is paid, credited or returned in the
/// same transaction; the contract keeps nothing but credits.
contract BatchPay {
    struct Leg {
        /// The payer's nonce for this bill.
        uint256 nonce;
        /// The bill.
        bytes32 bill;
        /// The payee.
        address to;
        /// Wei.
        uint128 amount;
        /// What was delivered, for readers of the calldata; not looked at here.
        bytes meta;
    }

    /// @notice Gas that a payee's own code may use (and the 2,300 of every payment). A payee
    /// that wants more, or refuses, is credited.
    uint256 public constant LEG_GAS = 30_000;

    /// @notice Wei that wait for a payee until it withdraws them.
    mapping(address payee => uint256 wei_) public credits;

    /// 256 nonces to a word. Scoped to the payer, so nobody uses up another's.
    mapping(address payer => mapping(uint256 word => uint256 bits)) private used;

    /// @notice A bill was paid; `credited` says that the payee has to withdraw it.
    event Payment(
        address indexed payer, address indexed payee, bytes32 indexed bill, uint128 amount, bool credited
    );
    /// @notice A leg whose nonce was used before: nothing was paid for it now.
    event Skipped(address indexed payer, bytes32 indexed bill, uint256 nonce);
    /// @notice A credit was withdrawn.
    event Withdrawal(address indexed payee, address to, uint256 amount);

    /// @notice The legs cost more than was sent.
    error Underfunded();
    /// @notice There is less gas than a payee may use.
    error GasTooLow();
    /// @notice There is no credit, or the receiver refused it.
    error NotWithdrawn();

    /// @notice Pays every leg whose nonce is unused and returns what is left of the value.
    function payBatch(Leg[] calldata legs) external payable {
        uint256 left = msg.value;
        for (uint256 i = 0; i < legs.length; ++i) {
            Leg calldata leg = legs[i];
            uint256 bit = 1 << (leg.nonce & 0xff);
            uint256 word = leg.nonce >> 8;
            uint256 bits = used[msg.sender][word];
            if (bits & bit != 0) {
                emit Skipped(msg.sender, leg.bill, leg.nonce);
                continue;
            }
            // Before the payee's code runs, which may come back here.
            used[msg.sender][word] = bits | bit;
            if (left < leg.amount) revert Underfunded();
            unchecked {
                left -= leg.amount;
            }
            bool paid = _send(leg.to, leg.amount, LEG_GAS);
            if (!paid) credits[leg.to] += leg.amount;
            emit Payment(msg.sender, leg.to, leg.bill, leg.amount, !paid);
        }
        if (left != 0 && !_send(msg.sender, left, gasleft())) credits[msg.sender] += left;
    }

    /// @notice Sends the caller's whole credit to `to`.
    function withdraw(address to) external {
        uint256 amount = credits[msg.sender];
        credits[msg.sender] = 0;
        if (amount == 0 || !_send(to, amount, gasleft())) revert NotWithdrawn();
        emit Withdrawal(msg.sender, to, amount);
    }

    /// @notice Whether a payer's nonce was used.
    function isUsed(address payer, uint256 nonce) external view returns (bool) {
        return used[payer][nonce >> 8] & (1 << (nonce & 0xff)) != 0;
    }

    /// A call that takes nothing back: what the receiver returns is not copied.
    function _send(address to, uint256 amount, uint256 gas_) private returns (bool done) {
        // A call gets at most 63/64 of the gas that is left (EIP-150): a payer must not make
        // a payee fail by being short of gas.
        if (gas_ == LEG_GAS && gasleft() < LEG_GAS + LEG_GAS / 32 + 40_000) revert GasTooLow();
        assembly ("memory-safe") {
            done := call(gas_, to, amount, 0, 0, 0, 0)
        }
    }
}
