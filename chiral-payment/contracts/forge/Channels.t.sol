// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Channels} from "contracts/Channels.sol";
import {Burning, Refusing, Test} from "./Test.sol";

abstract contract Words is Test {
    uint256 internal constant ORDER =
        0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 internal constant PAYER_KEY = 0xa11ce;
    uint256 internal constant PAYEE_KEY = 0xb0b;
    bytes32 internal constant CONTEXT = keccak256("what it is for");

    function digest(Channels channels, bytes32 said) internal view returns (bytes32) {
        return keccak256(abi.encodePacked("\x19\x01", channels.domainSeparator(), said));
    }

    function signed(uint256 key, bytes32 hash) internal pure returns (bytes32 r, bytes32 vs) {
        (uint8 v, bytes32 r_, bytes32 s) = vm.sign(key, hash);
        (r, vs) = (r_, bytes32(uint256(s) | (uint256(v - 27) << 255)));
    }

    function voucher(Channels channels, uint256 key, bytes32 id, uint128 cumulative)
        internal
        view
        returns (bytes32, bytes32)
    {
        bytes32 kind = keccak256("Voucher(bytes32 channelId,uint128 cumulative,bytes32 context)");
        return signed(key, digest(channels, keccak256(abi.encode(kind, id, cumulative, CONTEXT))));
    }

    function locked(Channels channels, bytes32 id, uint128 cumulative, bytes32 key, uint64 expiry)
        internal
        view
        returns (bytes32, bytes32)
    {
        bytes32 kind = keccak256(
            "LockedVoucher(bytes32 channelId,uint128 cumulative,bytes32 context,bytes32 keyHash,uint64 expiry)"
        );
        bytes32 keyHash = keccak256(abi.encode(key));
        bytes32 said = keccak256(abi.encode(kind, id, cumulative, CONTEXT, keyHash, expiry));
        return signed(PAYER_KEY, digest(channels, said));
    }

    function closing(Channels channels, uint256 key, bytes32 id, uint128 paid)
        internal
        view
        returns (bytes32, bytes32)
    {
        bytes32 kind = keccak256("Close(bytes32 channelId,uint128 paid)");
        return signed(key, digest(channels, keccak256(abi.encode(kind, id, paid))));
    }
}

/// A payee that comes back with its claims while it is being paid.
contract Returning {
    Channels private immutable channels;
    bytes private words;

    constructor(Channels channels_) {
        channels = channels_;
    }

    function say(bytes calldata words_) external {
        words = words_;
        (bool done,) = address(channels).call(words_);
        require(done, "the first time");
    }

    receive() external payable {
        (bool done,) = address(channels).call(words);
        require(!done, "twice");
        (done,) = address(channels).call(abi.encodeCall(Channels.withdraw, (address(this))));
        require(!done, "a credit that is not there");
    }
}

contract ChannelsTest is Words {
    Channels private channels = new Channels();
    address private payer = vm.addr(PAYER_KEY);
    address private payee = vm.addr(PAYEE_KEY);

    function setUp() public {
        vm.deal(payer, 1000 ether);
        vm.warp(1_790_000_000);
    }

    function opened(address to, uint256 deposit) private returns (bytes32) {
        vm.prank(payer);
        return channels.open{value: deposit}(to, 3600, bytes32(deposit));
    }

    function test_a_voucher_is_claimed_and_the_rest_comes_back() public {
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 30);
        vm.prank(payee);
        channels.claim(id, 30, CONTEXT, r, vs);
        same(payee.balance, 30, "claimed");
        vm.prank(payer);
        channels.topUp{value: 50}(id);
        (r, vs) = voucher(channels, PAYER_KEY, id, 120);
        uint256 before = payer.balance;
        vm.prank(payee);
        channels.claimAndClose(id, 120, CONTEXT, r, vs);
        same(payee.balance, 120, "all of it");
        same(payer.balance - before, 30, "the rest");
        same(address(channels).balance, 0, "nothing stays");
        vm.prank(payer);
        vm.expectRevert(Channels.Exists.selector);
        channels.open{value: 100}(payee, 3600, bytes32(uint256(100)));
    }

    function testFuzz_no_claim_is_more_than_the_deposit(uint128 deposit, uint128 cumulative) public {
        deposit = uint128(within(deposit, 1, 1e20));
        vm.assume(cumulative > 0);
        bytes32 id = opened(payee, deposit);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, cumulative);
        vm.prank(payee);
        channels.claim(id, cumulative, CONTEXT, r, vs);
        same(payee.balance, cumulative < deposit ? cumulative : deposit, "at most the deposit");
        vm.prank(payee);
        vm.expectRevert(Channels.NothingNew.selector);
        channels.claim(id, cumulative, CONTEXT, r, vs);
    }

    function testFuzz_vouchers_in_any_order_pay_the_highest(uint128[6] memory order) public {
        bytes32 id = opened(payee, 1e21);
        uint256 highest;
        for (uint256 i = 0; i < order.length; ++i) {
            uint128 cumulative = uint128(within(order[i], 1, 1e20));
            (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, cumulative);
            if (cumulative <= highest) vm.expectRevert(Channels.NothingNew.selector);
            else highest = cumulative;
            vm.prank(payee);
            channels.claim(id, cumulative, CONTEXT, r, vs);
            same(payee.balance, highest, "the highest so far");
        }
    }

    function testFuzz_what_was_not_signed_is_not_paid(uint128 said, uint128 claimed, bytes32 context) public {
        said = uint128(within(said, 1, 100));
        claimed = uint128(within(claimed, 1, 100));
        vm.assume(said != claimed || context != CONTEXT);
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, said);
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, claimed, context, r, vs);
    }

    function testFuzz_only_the_parties_call(address other) public {
        vm.assume(other != payer && other != payee);
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 30);
        bytes[8] memory calls = [
            abi.encodeCall(Channels.topUp, (id)),
            abi.encodeCall(Channels.startClose, (id)),
            abi.encodeCall(Channels.finalize, (id)),
            abi.encodeCall(Channels.cooperativeClose, (id, 30, r, vs)),
            abi.encodeCall(Channels.claim, (id, 30, CONTEXT, r, vs)),
            abi.encodeCall(Channels.claimLocked, (id, 30, CONTEXT, type(uint64).max, CONTEXT, r, vs)),
            abi.encodeCall(Channels.claimAndClose, (id, 30, CONTEXT, r, vs)),
            abi.encodeCall(Channels.claimAndClose, (id, 0, CONTEXT, r, vs))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(other);
            (bool done, bytes memory why) = address(channels).call(calls[i]);
            require(!done && bytes4(why) == Channels.NotYours.selector, "somebody else's call");
        }
        // The payer's are not the payee's, and the other way round.
        for (uint256 i = 0; i < calls.length; ++i) {
            if (i == 2) continue;
            vm.prank(i < 4 ? payee : payer);
            (bool done, bytes memory why) = address(channels).call(calls[i]);
            require(!done && bytes4(why) == Channels.NotYours.selector, "the other party's call");
        }
    }

    function test_another_chains_and_another_contracts_vouchers_are_worth_nothing() public {
        bytes32 id = opened(payee, 100);
        Channels twin = new Channels();
        (bytes32 r, bytes32 vs) = voucher(twin, PAYER_KEY, id, 30);
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 30, CONTEXT, r, vs);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        (r, vs) = voucher(channels, PAYER_KEY, id, 30);
        vm.chainId(here);
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 30, CONTEXT, r, vs);
        bytes32 other = opened(payee, 200);
        (r, vs) = voucher(channels, PAYER_KEY, id, 30);
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(other, 30, CONTEXT, r, vs);
    }

    function test_the_higher_s_is_no_signature() public {
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 30);
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        uint256 high = ORDER - s;
        // The higher s has its top bit set for most s: then it cannot even be written down.
        bytes32 other = bytes32((high & (type(uint256).max >> 1)) | ((1 - (uint256(vs) >> 255)) << 255));
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 30, CONTEXT, r, other);
        // The first one over the half that can.
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 30, CONTEXT, r, bytes32(ORDER / 2 + 1));
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 30, CONTEXT, 0, 0);
    }

    function testFuzz_a_lock_is_opened_by_its_key_before_it_expires(bytes32 key, bytes32 wrong, uint32 late) public {
        vm.assume(key != wrong);
        bytes32 id = opened(payee, 100);
        uint64 expiry = uint64(block.timestamp + 60);
        (bytes32 r, bytes32 vs) = locked(channels, id, 40, key, expiry);
        vm.prank(payee);
        vm.expectRevert(Channels.BadKey.selector);
        channels.claimLocked(id, 40, CONTEXT, expiry, wrong, r, vs);
        // A locked voucher is no voucher.
        vm.prank(payee);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.claim(id, 40, CONTEXT, r, vs);
        uint256 start = block.timestamp;
        vm.warp(expiry + late);
        vm.prank(payee);
        vm.expectRevert(Channels.Expired.selector);
        channels.claimLocked(id, 40, CONTEXT, expiry, key, r, vs);
        vm.prank(payee);
        vm.expectRevert(Channels.BadKey.selector);
        channels.claimLocked(id, 40, CONTEXT, expiry + late + 1, key, r, vs);
        vm.warp(start + 59);
        vm.prank(payee);
        channels.claimLocked(id, 40, CONTEXT, expiry, key, r, vs);
        same(payee.balance, 40, "with the key");
    }

    function test_who_was_away_until_the_last_block_loses_nothing() public {
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 70);
        vm.prank(payer);
        channels.startClose(id);
        vm.prank(payer);
        vm.expectRevert(Channels.IsClosing.selector);
        channels.topUp{value: 1}(id);
        vm.warp(block.timestamp + 3599);
        vm.prank(payer);
        vm.expectRevert(Channels.TooEarly.selector);
        channels.finalize(id);
        vm.prank(payee);
        channels.claim(id, 70, CONTEXT, r, vs);
        vm.warp(block.timestamp + 1);
        vm.prank(payer);
        channels.finalize(id);
        same(payee.balance, 70, "claimed in time");
        same(payer.balance, 1000 ether - 70, "the rest");
    }

    function test_who_comes_after_the_end_gets_nothing_and_before_finalizing_all() public {
        bytes32 id = opened(payee, 100);
        bytes32 other = opened(payee, 200);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 70);
        vm.prank(payer);
        channels.startClose(id);
        vm.prank(payer);
        channels.startClose(other);
        vm.warp(block.timestamp + 3600);
        vm.prank(payer);
        channels.finalize(id);
        vm.prank(payee);
        vm.expectRevert(Channels.NotOpen.selector);
        channels.claim(id, 70, CONTEXT, r, vs);
        (r, vs) = voucher(channels, PAYER_KEY, other, 70);
        vm.prank(payee);
        channels.claim(other, 70, CONTEXT, r, vs);
        same(payee.balance, 70, "late, but not too late");
    }

    function testFuzz_both_agree_on_the_end(uint128 claimed, uint128 paid) public {
        claimed = uint128(within(claimed, 1, 100));
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, claimed);
        vm.prank(payee);
        channels.claim(id, claimed, CONTEXT, r, vs);
        (r, vs) = closing(channels, PAYER_KEY, id, paid);
        vm.prank(payer);
        vm.expectRevert(Channels.BadSignature.selector);
        channels.cooperativeClose(id, paid, r, vs);
        (r, vs) = closing(channels, PAYEE_KEY, id, paid);
        vm.prank(payer);
        channels.cooperativeClose(id, paid, r, vs);
        uint256 had = paid < claimed ? claimed : paid > 100 ? 100 : paid;
        same(payee.balance, had, "what was agreed on, and no less than it had");
        same(payer.balance, 1000 ether - had, "the rest");
    }

    function test_terms_that_make_no_sense_are_refused() public {
        vm.deal(address(this), 10);
        vm.expectRevert(Channels.BadTerms.selector);
        channels.open{value: 1}(address(0), 3600, 0);
        vm.expectRevert(Channels.BadTerms.selector);
        channels.open{value: 1}(address(this), 3600, 0);
        vm.expectRevert(Channels.BadTerms.selector);
        channels.open{value: 1}(payee, 59, 0);
        vm.expectRevert(Channels.BadTerms.selector);
        channels.open{value: 1}(payee, 30 days + 1, 0);
        vm.expectRevert(Channels.BadTerms.selector);
        channels.open{value: 0}(payee, 3600, 0);
        vm.expectRevert(Channels.NotOpen.selector);
        channels.topUp{value: 1}(0);
    }

    function testFuzz_who_refuses_stops_nobody(bool burns, bool both) public {
        address bad = burns ? address(new Burning()) : address(new Refusing());
        bytes32 id = opened(bad, 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 60);
        if (both) {
            // The payer refuses too.
            vm.etch(payer, address(new Refusing()).code);
        }
        vm.prank(bad);
        channels.claimAndClose(id, 60, CONTEXT, r, vs);
        same(channels.credits(bad), 60, "the payee's credit");
        same(channels.credits(payer), both ? 40 : 0, "the payer's");
        vm.expectRevert(Channels.NotWithdrawn.selector);
        channels.withdraw(address(this));
        vm.prank(bad);
        channels.withdraw(address(0xbeef));
        same(address(0xbeef).balance, 60, "withdrawn");
        vm.prank(bad);
        vm.expectRevert(Channels.NotWithdrawn.selector);
        channels.withdraw(address(0xbeef));
    }

    function test_too_little_gas_makes_nobody_fail() public {
        bytes32 id = opened(payee, 100);
        (bytes32 r, bytes32 vs) = closing(channels, PAYEE_KEY, id, 60);
        vm.prank(payer);
        (bool done,) =
            address(channels).call{gas: 90_000}(abi.encodeCall(Channels.cooperativeClose, (id, 60, r, vs)));
        require(!done, "not with so little gas");
        same(channels.credits(payee), 0, "nor as a credit");
    }

    function test_coming_back_gets_nothing_twice() public {
        vm.deal(address(this), 500);
        channels.open{value: 500}(payee, 3600, 0);
        Returning returning = new Returning(channels);
        bytes32 id = opened(address(returning), 100);
        (bytes32 r, bytes32 vs) = voucher(channels, PAYER_KEY, id, 60);
        returning.say(abi.encodeCall(Channels.claim, (id, 60, CONTEXT, r, vs)));
        same(address(returning).balance, 60, "once");
        (r, vs) = voucher(channels, PAYER_KEY, id, 80);
        returning.say(abi.encodeCall(Channels.claimAndClose, (id, 80, CONTEXT, r, vs)));
        same(address(returning).balance, 80, "once");
        same(address(channels).balance, 500, "others' money");
    }
}
