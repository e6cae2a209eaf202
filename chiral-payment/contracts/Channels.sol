// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Payment channels from one payer to one payee.
/// @notice The payer deposits once and pays with signed words off the chain; each says how much
/// it has paid in all, so the payee needs only the last one. The payee claims when it likes; the
/// payer gets the rest back at once if the payee agrees or closes, and after a challenge period
/// if it does not.
/// @dev No owner, no upgrade, no fee. What is paid out of a channel was paid into it before; all
/// that is not in a channel is somebody's credit.
contract Channels {
    struct Channel {
        address payer;
        /// Seconds between `startClose` and `finalize`.
        uint32 challenge;
        /// 0: open. `CLOSED`: over. Else: when the payer may finalize, in seconds since 1970.
        uint64 closesAt;
        address payee;
        uint128 deposit;
        /// What the payee has had of it.
        uint128 claimed;
    }

    /// @notice Value of `closesAt` of a channel that is over. Its id is never used again: what
    /// was signed for it must not count in another one.
    uint64 public constant CLOSED = type(uint64).max;

    /// @notice Shortest and longest challenge period, in seconds.
    uint32 public constant MIN_CHALLENGE = 60;
    uint32 public constant MAX_CHALLENGE = 30 days;

    /// @notice Gas that a receiver's own code may use (and the 2,300 of every payment). Who wants
    /// more, or refuses, is credited.
    uint256 public constant RECEIVER_GAS = 30_000;

    /// Half of the order of secp256k1: a signature has one form, the one with the lower s.
    uint256 private constant HALF_ORDER =
        0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME = keccak256("Chiral Channels");
    bytes32 private constant VERSION = keccak256("1");
    bytes32 private constant VOUCHER =
        keccak256("Voucher(bytes32 channelId,uint128 cumulative,bytes32 context)");
    bytes32 private constant LOCKED_VOUCHER = keccak256(
        "LockedVoucher(bytes32 channelId,uint128 cumulative,bytes32 context,bytes32 keyHash,uint64 expiry)"
    );
    bytes32 private constant CLOSE = keccak256("Close(bytes32 channelId,uint128 paid)");

    /// @notice By id, which `open` answers.
    mapping(bytes32 id => Channel) public channels;

    /// @notice Wei that wait for somebody until it withdraws them.
    mapping(address receiver => uint256 wei_) public credits;

    event Opened(
        bytes32 indexed id, address indexed payer, address indexed payee, uint128 deposit, uint32 challenge
    );
    event ToppedUp(bytes32 indexed id, uint128 deposit);
    event Claimed(bytes32 indexed id, uint128 claimed, bytes32 context);
    /// @notice A locked voucher was claimed; the payer has its key now.
    event Unlocked(bytes32 indexed id, bytes32 indexed keyHash, bytes32 key);
    event Closing(bytes32 indexed id, uint64 closesAt);
    event Closed(bytes32 indexed id, uint128 claimed, uint128 refund);
    /// @notice A payment was refused by its receiver, which has to withdraw it.
    event Credited(address indexed receiver, uint256 amount);
    event Withdrawal(address indexed receiver, address to, uint256 amount);

    /// @notice There is such a channel, or was.
    error Exists();
    /// @notice There is no such channel, or it is over.
    error NotOpen();
    /// @notice The caller is not the party whose call this is.
    error NotYours();
    /// @notice A payee that is nobody, or the payer itself; a challenge period out of bounds; a
    /// deposit of nothing, or one that does not fit.
    error BadTerms();
    /// @notice The payer began to close it before.
    error IsClosing();
    /// @notice The payer has not begun to close it, or the challenge period is not over.
    error TooEarly();
    /// @notice Not signed by the other party, or not in the one form of a signature.
    error BadSignature();
    /// @notice The key does not open the lock.
    error BadKey();
    /// @notice The locked voucher has expired.
    error Expired();
    /// @notice It pays nothing beyond what was claimed.
    error NothingNew();
    /// @notice There is less gas than a receiver may use.
    error GasTooLow();
    /// @notice There is no credit, or the receiver refused it.
    error NotWithdrawn();

    // The payer's calls.

    /// @notice Opens a channel with what is sent as its deposit.
    /// @param salt Any; makes another channel between the same two.
    function open(address payee, uint32 challenge, bytes32 salt) external payable returns (bytes32 id) {
        id = idOf(msg.sender, payee, challenge, salt);
        Channel storage channel = channels[id];
        if (channel.payer != address(0)) revert Exists();
        if (payee == address(0) || payee == msg.sender) revert BadTerms();
        if (challenge < MIN_CHALLENGE || challenge > MAX_CHALLENGE) revert BadTerms();
        if (msg.value == 0 || msg.value > type(uint128).max) revert BadTerms();
        channel.payer = msg.sender;
        channel.challenge = challenge;
        channel.payee = payee;
        channel.deposit = uint128(msg.value);
        emit Opened(id, msg.sender, payee, uint128(msg.value), challenge);
    }

    /// @notice Adds what is sent to the deposit.
    function topUp(bytes32 id) external payable {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payer) revert NotYours();
        if (channel.closesAt != 0) revert IsClosing();
        uint256 deposit = uint256(channel.deposit) + msg.value;
        if (msg.value == 0 || deposit > type(uint128).max) revert BadTerms();
        channel.deposit = uint128(deposit);
        emit ToppedUp(id, uint128(deposit));
    }

    /// @notice Begins the challenge period, in which the payee has to claim what it holds.
    function startClose(bytes32 id) external {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payer) revert NotYours();
        if (channel.closesAt != 0) revert IsClosing();
        uint64 closesAt = uint64(block.timestamp) + channel.challenge;
        channel.closesAt = closesAt;
        emit Closing(id, closesAt);
    }

    /// @notice Ends a channel whose challenge period is over; what was not claimed goes back to
    /// the payer. Until it is called the payee may still claim.
    function finalize(bytes32 id) external {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payer && msg.sender != channel.payee) revert NotYours();
        if (channel.closesAt == 0 || block.timestamp < channel.closesAt) revert TooEarly();
        _close(id, channel, channel.claimed);
    }

    /// @notice Ends a channel at once, with the payee's signature under what it shall have had of
    /// it in all.
    function cooperativeClose(bytes32 id, uint128 paid, bytes32 r, bytes32 vs) external {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payer) revert NotYours();
        bytes32 said = keccak256(abi.encode(CLOSE, id, paid));
        if (_signer(said, r, vs) != channel.payee) revert BadSignature();
        _close(id, channel, paid);
    }

    // The payee's calls.

    /// @notice Takes what a voucher says beyond what was claimed before, as far as the deposit
    /// goes.
    function claim(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs) external {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payee) revert NotYours();
        _checkVoucher(channel, id, cumulative, context, r, vs);
        _claim(id, channel, cumulative, context);
    }

    /// @notice The same with a locked voucher, whose key becomes public.
    function claimLocked(
        bytes32 id,
        uint128 cumulative,
        bytes32 context,
        uint64 expiry,
        bytes32 key,
        bytes32 r,
        bytes32 vs
    ) external {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payee) revert NotYours();
        if (block.timestamp >= expiry) revert Expired();
        bytes32 keyHash = keccak256(abi.encode(key));
        bytes32 said = keccak256(abi.encode(LOCKED_VOUCHER, id, cumulative, context, keyHash, expiry));
        // A wrong key makes another hash, which was not signed.
        if (_signer(said, r, vs) != channel.payer) revert BadKey();
        emit Unlocked(id, keyHash, key);
        _claim(id, channel, cumulative, context);
    }

    /// @notice Takes what a voucher says and gives the rest back at once. With a voucher that
    /// says nothing new it is only given back, and the signature is not looked at.
    function claimAndClose(bytes32 id, uint128 cumulative, bytes32 context, bytes32 r, bytes32 vs)
        external
    {
        Channel storage channel = _open(id);
        if (msg.sender != channel.payee) revert NotYours();
        if (cumulative > channel.claimed) {
            _checkVoucher(channel, id, cumulative, context, r, vs);
            emit Claimed(id, _least(cumulative, channel.deposit), context);
        }
        _close(id, channel, cumulative);
    }

    /// @notice Sends the caller's whole credit to `to`.
    function withdraw(address to) external {
        uint256 amount = credits[msg.sender];
        credits[msg.sender] = 0;
        if (amount == 0 || !_call(to, amount, gasleft())) revert NotWithdrawn();
        emit Withdrawal(msg.sender, to, amount);
    }

    // For everybody to read.

    /// @notice The id of a channel, open or not.
    function idOf(address payer, address payee, uint32 challenge, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), payer, payee, challenge, salt));
    }

    /// @notice The EIP-712 domain in which everything is signed.
    function domainSeparator() public view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, block.chainid, address(this)));
    }

    function _open(bytes32 id) private view returns (Channel storage channel) {
        channel = channels[id];
        if (channel.payer == address(0) || channel.closesAt == CLOSED) revert NotOpen();
    }

    function _checkVoucher(
        Channel storage channel,
        bytes32 id,
        uint128 cumulative,
        bytes32 context,
        bytes32 r,
        bytes32 vs
    ) private view {
        bytes32 said = keccak256(abi.encode(VOUCHER, id, cumulative, context));
        if (_signer(said, r, vs) != channel.payer) revert BadSignature();
    }

    /// Signatures are in the short form of EIP-2098. Nobody's address is zero, which is what
    /// cannot be recovered.
    function _signer(bytes32 said, bytes32 r, bytes32 vs) private view returns (address signer) {
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        if (s > HALF_ORDER) revert BadSignature();
        uint8 v = uint8(uint256(vs) >> 255) + 27;
        signer = ecrecover(keccak256(abi.encodePacked("\x19\x01", domainSeparator(), said)), v, r, bytes32(s));
        if (signer == address(0)) revert BadSignature();
    }

    function _claim(bytes32 id, Channel storage channel, uint128 cumulative, bytes32 context) private {
        uint128 total = _least(cumulative, channel.deposit);
        uint128 before = channel.claimed;
        if (total <= before) revert NothingNew();
        channel.claimed = total;
        emit Claimed(id, total, context);
        _pay(channel.payee, total - before);
    }

    /// `paid` is what the payee shall have had, of which `claimed` it has.
    function _close(bytes32 id, Channel storage channel, uint128 paid) private {
        (address payer, address payee) = (channel.payer, channel.payee);
        (uint128 deposit, uint128 before) = (channel.deposit, channel.claimed);
        uint128 total = _least(paid, deposit);
        if (total < before) total = before;
        // Before anybody's code runs, which may come back here.
        channel.closesAt = CLOSED;
        delete channel.payee;
        delete channel.deposit;
        delete channel.claimed;
        emit Closed(id, total, deposit - total);
        _pay(payee, total - before);
        _pay(payer, deposit - total);
    }

    function _pay(address to, uint256 amount) private {
        if (amount == 0) return;
        // A call gets at most 63/64 of the gas that is left (EIP-150): nobody must make another
        // fail by being short of gas.
        if (gasleft() < RECEIVER_GAS + RECEIVER_GAS / 32 + 40_000) revert GasTooLow();
        if (!_call(to, amount, RECEIVER_GAS)) {
            credits[to] += amount;
            emit Credited(to, amount);
        }
    }

    /// A call that takes nothing back: what the receiver returns is not copied.
    function _call(address to, uint256 amount, uint256 gas_) private returns (bool done) {
        assembly ("memory-safe") {
            done := call(gas_, to, amount, 0, 0, 0, 0)
        }
    }

    function _least(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
