"""Re-executes the blocks of a devnet by the executable specification of Ethereum (London).

    python executable_spec.py URL

Needs `pip install ethereum-execution==2.20.0`. Every header, base fee, difficulty, transaction,
receipt, bloom and state root is computed anew from `debug_getRawBlock`. Only the proof of work is
left out: these blocks have none.
"""

import json
import pathlib
import sys
import urllib.request

from ethereum.crypto.hash import keccak256
from ethereum_rlp import rlp
from ethereum_types.bytes import Bytes
from ethereum_types.numeric import U64, U256, Uint

import ethereum.forks.london.fork as fork
from ethereum.forks.london.blocks import Block
from ethereum.forks.london.fork_types import Account, Address
from ethereum.forks.london.state import State, set_account, set_code, state_root

url = sys.argv[1]


def call(method, *params):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer = json.load(answer)
    if "error" in answer:
        raise SystemExit(f"{method}: {answer['error']}")
    return answer["result"]


def unhex(text):
    return bytes.fromhex(text[2:])


def block(number):
    return rlp.decode_to(Block, unhex(call("debug_getRawBlock", hex(number))))


# The accounts of block 0: those of the well-known mnemonic, and the contracts.
spec = pathlib.Path(__file__).parents[2] / "chiral-chain/src"
contracts = json.loads((spec / "spec/devnet-predeploys.json").read_text())
addresses = [contract["address"] for contract in contracts]
accounts = (spec / "dev_accounts.rs").read_text()
addresses += ["0x" + part[:40] for part in accounts.split('address!("')[1:]]

state = State()
for text in addresses:
    address = Address(unhex(text))
    account = Account(
        nonce=Uint(int(call("eth_getTransactionCount", text, "0x0"), 16)),
        balance=U256(int(call("eth_getBalance", text, "0x0"), 16)),
        code=b"",
    )
    set_account(state, address, account)
    code = call("eth_getCode", text, "0x0")
    if code != "0x":
        set_code(state, address, Bytes(unhex(code)))

genesis = block(0)
assert state_root(state) == genesis.header.state_root, "the state of block 0"
fork.validate_proof_of_work = lambda header: None
chain = fork.BlockChain(blocks=[genesis], state=state, chain_id=U64(98765))
head = int(call("eth_blockNumber"), 16)
transactions = 0
for number in range(1, head + 1):
    following = block(number)
    fork.state_transition(chain, following)
    transactions += len(following.transactions)
    named = unhex(call("eth_getBlockByNumber", hex(number), False)["hash"])
    assert keccak256(rlp.encode(following.header)) == named, f"the hash of block {number}"
assert transactions > 0
print(f"   {head} blocks with {transactions} transactions are valid")
