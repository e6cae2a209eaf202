// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BatchPay} from "contracts/BatchPay.sol";
import {Burning, Refusing, Test} from "./Test.sol";

/// Comes back into the contract while it is being paid, as payer and for its credit.
contract Greedy {
    BatchPay private immutable batch;
    BatchPay.Leg private leg;

    constructor(BatchPay batch_) {
        batch = batch_;
    }

    function pay(BatchPay.Leg calldata leg_) external payable {
        leg = leg_;
        BatchPay.Leg[] memory legs = new BatchPay.Leg[](1);
        legs[0] = leg_;
        batch.payBatch{value: msg.value}(legs);
    }

    receive() external payable {
        try batch.withdraw(address(this)) {} catch {}
        BatchPay.Leg[] memory legs = new BatchPay.Leg[](1);
        legs[0] = leg;
        try batch.payBatch{value: msg.value}(legs) {} catch {}
    }
}

contract BatchPayTest is Test {
    BatchPay private batch = new BatchPay();
    address private refusing = address(new Refusing());
    address private burning = address(new Burning());

    function legOf(uint256 nonce, address to, uint128 amount) private pure returns (BatchPay.Leg memory) {
        return BatchPay.Leg(nonce, bytes32(nonce), to, amount, "");
    }

    function one(uint256 nonce, address to, uint128 amount) private pure returns (BatchPay.Leg[] memory legs) {
        legs = new BatchPay.Leg[](1);
        legs[0] = legOf(nonce, to, amount);
    }

    function testFuzz_a_bill_is_paid_once(address payer, uint256 nonce, uint128 amount, uint128 extra) public {
        vm.assume(payer.code.length == 0 && uint160(payer) > 0xffff && payer != address(vm));
        address payee = address(0xbeef);
        vm.deal(payer, 2 * (uint256(amount) + extra));
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(payer);
            batch.payBatch{value: uint256(amount) + extra}(one(nonce, payee, amount));
            same(payee.balance, amount, "once");
            same(address(batch).balance, 0, "nothing stays");
        }
        same(payer.balance, uint256(amount) + 2 * uint256(extra), "the rest went back");
        require(batch.isUsed(payer, nonce), "used");
    }

    function testFuzz_nobody_uses_up_anothers_nonce(address other, uint256 nonce) public {
        address payer = address(0xa11ce);
        vm.assume(other != payer && other.code.length == 0 && uint160(other) > 0xffff);
        vm.assume(other != address(vm));
        vm.deal(other, 1);
        vm.prank(other);
        batch.payBatch{value: 1}(one(nonce, address(0xbeef), 1));
        require(batch.isUsed(other, nonce) && !batch.isUsed(payer, nonce), "its own only");
    }

    function testFuzz_whoever_refuses_is_credited(uint128 amount, bool burns) public {
        vm.assume(amount > 0);
        address payee = burns ? burning : refusing;
        vm.deal(address(this), amount);
        batch.payBatch{value: amount}(one(1, payee, amount));
        same(batch.credits(payee), amount, "credited");
        same(address(batch).balance, amount, "and kept for it");
        vm.expectRevert(BatchPay.NotWithdrawn.selector);
        batch.withdraw(address(this));
        vm.prank(payee);
        batch.withdraw(address(0xbeef));
        same(address(0xbeef).balance, amount, "withdrawn");
    }

    function test_coming_back_gets_nothing_twice() public {
        vm.deal(address(this), 600);
        batch.payBatch{value: 500}(one(1, refusing, 500));
        Greedy greedy = new Greedy(batch);
        greedy.pay{value: 100}(legOf(7, address(greedy), 100));
        same(address(greedy).balance + batch.credits(address(greedy)), 100, "what it brought");
        same(address(batch).balance, 500 + batch.credits(address(greedy)), "what is others'");
    }

    function test_too_little_money_pays_nobody() public {
        vm.deal(address(this), 10);
        vm.expectRevert(BatchPay.Underfunded.selector);
        batch.payBatch{value: 9}(one(1, address(0xbeef), 10));
        require(!batch.isUsed(address(this), 1), "the nonce is still good");
    }

    receive() external payable {}
}

/// Everything that payers and payees may do, at random.
contract BatchPayHandler is Test {
    BatchPay public immutable batch;
    /// Three that pay, and three that are paid.
    address[6] public people;

    constructor(BatchPay batch_, address refusing, address burning) {
        batch = batch_;
        people = [address(0xa1), address(0xa2), address(0xa3), address(0xb1), refusing, burning];
        for (uint256 i = 0; i < 3; ++i) {
            vm.deal(people[i], 1e30);
        }
    }

    function pay(uint256 from, uint256 to, uint256 nonce, uint128 amount, uint8 count) external {
        address payer = people[within(from, 0, 2)];
        uint256 legs = within(count, 1, 4);
        amount = uint128(within(amount, 0, 1e20));
        BatchPay.Leg[] memory all = new BatchPay.Leg[](legs);
        uint256 fresh;
        for (uint256 i = 0; i < legs; ++i) {
            // A nonce comes twice in a batch now and then.
            uint256 n = within((nonce & 0xff) + i / 2 * 3, 0, 300);
            all[i] = BatchPay.Leg(n, bytes32(n), people[3 + within((to & 0xff) + i, 0, 2)], amount, "");
            bool twice = i > 0 && all[i - 1].nonce == n;
            if (!twice && !batch.isUsed(payer, n)) ++fresh;
        }
        uint256 before = payer.balance;
        vm.prank(payer);
        batch.payBatch{value: uint256(amount) * legs}(all);
        same(before - payer.balance, fresh * amount, "each bill once");
    }

    function withdraw(uint256 who, uint256 to) external {
        address owner = people[within(who, 3, 5)];
        uint256 credit = batch.credits(owner);
        address receiver = people[within(to, 0, 3)];
        uint256 before = receiver.balance;
        if (credit == 0) vm.expectRevert(BatchPay.NotWithdrawn.selector);
        vm.prank(owner);
        batch.withdraw(receiver);
        same(receiver.balance - before, credit, "the whole credit, and no more");
    }

    function total() public view returns (uint256 sum) {
        sum = address(batch).balance;
        for (uint256 i = 0; i < 6; ++i) {
            sum += people[i].balance;
        }
    }

    function allCredits() external view returns (uint256 sum) {
        for (uint256 i = 0; i < 6; ++i) {
            sum += batch.credits(people[i]);
        }
    }
}

contract BatchPayInvariants is Test {
    BatchPay private batch = new BatchPay();
    BatchPayHandler private handler;

    function setUp() public {
        handler = new BatchPayHandler(batch, address(new Refusing()), address(new Burning()));
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_it_holds_credits_and_nothing_else() external view {
        same(address(batch).balance, handler.allCredits(), "balance and credits");
    }

    function invariant_the_sum_of_all_balances_is_what_it_was() external view {
        same(handler.total(), 3e30, "the sum");
    }
}
