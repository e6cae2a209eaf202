// Reads a signed quote from standard input and checks it with ethers alone.
import { readFileSync } from "node:fs";
import { Signature, TypedDataEncoder, verifyTypedData } from "ethers";

const { domain, message, digest, signature, signer } = JSON.parse(readFileSync(0, "utf8"));

const types = {
  Discount: [
    { name: "fromBytes", type: "uint64" },
    { name: "pricePerMib", type: "uint256" },
  ],
  Quote: [
    { name: "id", type: "bytes32" },
    { name: "cid", type: "bytes32" },
    { name: "payer", type: "address" },
    { name: "payee", type: "address" },
    { name: "pricePerMib", type: "uint256" },
    { name: "freeBytes", type: "uint64" },
    { name: "discounts", type: "Discount[]" },
    { name: "answers", type: "bytes32" },
    { name: "policy", type: "uint8" },
    { name: "creditLimit", type: "uint256" },
    { name: "prepayBytes", type: "uint64" },
    { name: "confirmations", type: "uint32" },
    { name: "chainId", type: "uint64" },
    { name: "genesis", type: "bytes32" },
    { name: "batchPay", type: "address" },
    { name: "channel", type: "ChannelTerms" },
    { name: "validUntil", type: "uint64" },
  ],
  ChannelTerms: [
    { name: "contractAt", type: "address" },
    { name: "challenge", type: "uint32" },
    { name: "windowFirst", type: "uint32" },
    { name: "windowCap", type: "uint32" },
    { name: "batchChunks", type: "uint32" },
  ],
};

function check(condition, what) {
  if (!condition) {
    console.error(`interop: FAILED: ${what}`);
    process.exit(1);
  }
}

const recovered = (terms) => verifyTypedData(domain, types, terms, Signature.from(signature));

check(TypedDataEncoder.hash(domain, types, message) === digest, "ethers hashes the quote to something else");
check(recovered(message) === signer, "ethers recovers another wallet");
check(message.payee === signer, "the quote is not the payee's");

// A wei more is another statement.
const dearer = { ...message, pricePerMib: String(BigInt(message.pricePerMib) + 1n) };
check(recovered(dearer) !== signer, "the price is not under the signature");
console.log(`ethers recovers ${signer} from the quote`);
