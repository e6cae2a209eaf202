// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Channels} from "contracts/Channels.sol";
import {Burning, Refusing} from "./Test.sol";
import {Words} from "./Channels.t.sol";

/// Everything that the parties of a few channels may do, at random, with a model beside it of
/// what each channel was paid and has paid.
contract ChannelsHandler is Words {
    Channels public immutable channels;
    address public immutable payer = vm.addr(PAYER_KEY);
    address[4] public payees;
    bytes32[] public ids;
    mapping(bytes32 => address) public payeeOf;
    mapping(bytes32 => uint256) public paidIn;
    mapping(bytes32 => uint256) public paidOut;
    mapping(bytes32 => uint256) public highest;
    uint256 private salt;

    constructor(Channels channels_) {
        channels = channels_;
        payees = [vm.addr(PAYEE_KEY), address(0xb1), address(new Refusing()), address(new Burning())];
        vm.deal(payer, 1e30);
        vm.warp(1_790_000_000);
    }

    function open(uint256 to, uint256 deposit, uint256 challenge) external {
        if (ids.length == 12) return;
        address payee = payees[within(to, 0, 3)];
        deposit = within(deposit, 1, 1e20);
        vm.prank(payer);
        bytes32 id =
            channels.open{value: deposit}(payee, uint32(within(challenge, 60, 7200)), bytes32(++salt));
        ids.push(id);
        payeeOf[id] = payee;
        paidIn[id] = deposit;
    }

    modifier one(uint256 which) {
        if (ids.length == 0) return;
        _;
    }

    function any(uint256 which) private view returns (bytes32 id, uint64 closesAt) {
        id = ids[within(which, 0, ids.length - 1)];
        (,, closesAt,,,) = channels.channels(id);
    }

    function wealth(address who) private view returns (uint256) {
        return who.balance + channels.credits(who);
    }

    function topUp(uint256 which, uint256 amount) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        amount = within(amount, 1, 1e20);
        bool refused = closesAt != 0;
        if (refused) vm.expectRevert();
        else paidIn[id] += amount;
        vm.prank(payer);
        channels.topUp{value: amount}(id);
    }

    function claim(uint256 which, uint256 cumulative) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        uint128 total = uint128(within(cumulative, 1, 3e20));
        uint256 due = total < paidIn[id] ? total : paidIn[id];
        bytes memory words = claiming(id, total, false);
        bool refused = closesAt == channels.CLOSED() || due <= paidOut[id];
        uint256 before = wealth(payeeOf[id]);
        vm.prank(payeeOf[id]);
        (bool done,) = address(channels).call(words);
        require(done != refused, "a claim");
        if (refused) return;
        same(wealth(payeeOf[id]) - before, due - paidOut[id], "what is new in the voucher");
        paidOut[id] = due;
    }

    function claimAndClose(uint256 which, uint256 cumulative) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        uint128 total = uint128(within(cumulative, 1, 3e20));
        bytes memory words = claiming(id, total, true);
        uint256 before = wealth(payeeOf[id]);
        uint256 payers = wealth(payer);
        vm.prank(payeeOf[id]);
        (bool done,) = address(channels).call(words);
        require(done != (closesAt == channels.CLOSED()), "an end");
        if (!done) return;
        uint256 due = total < paidIn[id] ? total : paidIn[id];
        if (due < paidOut[id]) due = paidOut[id];
        same(wealth(payeeOf[id]) - before, due - paidOut[id], "what is new in the voucher");
        same(wealth(payer) - payers, paidIn[id] - due, "the rest");
        paidOut[id] = paidIn[id];
    }

    function claiming(bytes32 id, uint128 total, bool close) private view returns (bytes memory) {
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, total);
        if (close) return abi.encodeCall(Channels.claimAndClose, (id, total, CONTEXT, r, vs));
        return abi.encodeCall(Channels.claim, (id, total, CONTEXT, r, vs));
    }

    function claimLocked(uint256 which, uint256 cumulative, uint32 life) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        uint128 total = uint128(within(cumulative, 1, 3e20));
        uint64 expiry = uint64(block.timestamp) + life % 3;
        uint256 due = total < paidIn[id] ? total : paidIn[id];
        bool refused = closesAt == channels.CLOSED() || expiry <= block.timestamp || due <= paidOut[id];
        bytes memory words = unlocking(id, total, expiry);
        uint256 before = wealth(payeeOf[id]);
        vm.prank(payeeOf[id]);
        (bool done,) = address(channels).call(words);
        require(done != refused, "a claim with a key");
        if (refused) return;
        same(wealth(payeeOf[id]) - before, due - paidOut[id], "what is new in the voucher");
        paidOut[id] = due;
    }

    function unlocking(bytes32 id, uint128 total, uint64 expiry) private view returns (bytes memory) {
        (bytes32 r, bytes32 vs) = locked(channels, id, total, CONTEXT, expiry);
        return abi.encodeCall(Channels.claimLocked, (id, total, CONTEXT, expiry, CONTEXT, r, vs));
    }

    function startClose(uint256 which) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        if (closesAt != 0) vm.expectRevert();
        vm.prank(payer);
        channels.startClose(id);
    }

    function finalize(uint256 which, bool byPayee) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        bool refused = closesAt == 0 || block.timestamp < closesAt;
        uint256 before = wealth(payer);
        if (refused) vm.expectRevert();
        vm.prank(byPayee ? payeeOf[id] : payer);
        channels.finalize(id);
        if (refused) return;
        same(wealth(payer) - before, paidIn[id] - paidOut[id], "the rest");
        paidOut[id] = paidIn[id];
    }

    function cooperativeClose(uint256 which, uint256 paid) external one(which) {
        (bytes32 id, uint64 closesAt) = any(which);
        uint128 total = uint128(within(paid, 0, 3e20));
        (bytes32 r, bytes32 vs) = closing(channels, PAYEE_KEY, id, total);
        bool refused = closesAt == channels.CLOSED() || payeeOf[id] != payees[0];
        uint256 before = wealth(payees[0]);
        if (refused) vm.expectRevert();
        vm.prank(payer);
        channels.cooperativeClose(id, total, r, vs);
        if (refused) return;
        uint256 due = total < paidIn[id] ? total : paidIn[id];
        uint256 more = due > paidOut[id] ? due - paidOut[id] : 0;
        same(wealth(payees[0]) - before, more, "what was agreed on");
        paidOut[id] = paidIn[id];
    }

    function withdraw(uint256 who, uint256 to) external {
        address owner = payees[within(who, 2, 3)];
        address receiver = payees[within(to, 0, 1)];
        (uint256 credit, uint256 before) = (channels.credits(owner), receiver.balance);
        if (credit == 0) vm.expectRevert(Channels.NotWithdrawn.selector);
        vm.prank(owner);
        channels.withdraw(receiver);
        same(receiver.balance - before, credit, "the whole credit");
    }

    function pass(uint256 seconds_) external {
        vm.warp(block.timestamp + within(seconds_, 1, 4000));
    }

    /// What is in channels and credits, and what everybody has.
    function sums() external view returns (uint256 held, uint256 all) {
        for (uint256 i = 0; i < ids.length; ++i) {
            (,,,, uint128 deposit, uint128 claimed) = channels.channels(ids[i]);
            require(claimed <= deposit, "claimed more than was deposited");
            require(paidOut[ids[i]] <= paidIn[ids[i]], "paid more than was deposited");
            held += deposit - claimed;
        }
        all = address(channels).balance + payer.balance;
        held += channels.credits(payer);
        for (uint256 i = 0; i < 4; ++i) {
            held += channels.credits(payees[i]);
            all += payees[i].balance;
        }
    }
}

contract ChannelsInvariants is Words {
    Channels private channels = new Channels();
    ChannelsHandler private handler;

    function setUp() public {
        handler = new ChannelsHandler(channels);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_it_holds_what_is_deposited_and_credited() external view {
        (uint256 held,) = handler.sums();
        same(address(channels).balance, held, "balance, deposits and credits");
    }

    function invariant_the_sum_of_all_balances_is_what_it_was() external view {
        (, uint256 all) = handler.sums();
        same(all, 1e30, "the sum");
    }
}
