// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// What of forge's cheats is used here.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function deal(address to, uint256 amount) external;
    function etch(address place, bytes calldata code) external;
    function prank(address sender) external;
    function warp(uint256 time) external;
    function chainId(uint256 id) external;
    function assume(bool condition) external pure;
    function expectRevert(bytes4 selector) external;
    function expectRevert() external;
}

abstract contract Test {
    Vm internal constant vm = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);

    function same(uint256 found, uint256 wanted, string memory what) internal pure {
        require(found == wanted, what);
    }

    function within(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }
}

/// Refuses every payment.
contract Refusing {
    receive() external payable {
        revert("no");
    }
}

/// Uses up all gas that it gets.
contract Burning {
    receive() external payable {
        while (true) {}
    }
}
