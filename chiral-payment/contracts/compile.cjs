// Compiles the contracts here with solc from npm (its folder is the first argument) and
// writes their JSON and the devnet's predeploys below the folder that is the second one.
// scripts/contracts runs it.
'use strict'
const fs = require('fs')
const path = require('path')

const [modules, out] = process.argv.slice(2)
const solc = require(path.join(path.resolve(modules), 'solc'))

// Name of the contract, and where the devnet has it from the first block on. The addresses are
// "batch" and "channel", and "chi(r)al", in hexadecimal digits, as far as those go.
const contracts = {
  BatchPay: '0xba7c4000000000000000000000000000000c41a1',
  Channels: '0xc4a2e100000000000000000000000000000c41a1',
}

// The chain has the rules of London: later ones have opcodes that it does not know.
const settings = {
  evmVersion: 'london',
  optimizer: { enabled: true, runs: 10000 },
  // The same bytes wherever and whenever it is compiled.
  metadata: { appendCBOR: false, bytecodeHash: 'none' },
  outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object'] } },
}

function write(file, value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2)
  fs.mkdirSync(path.dirname(path.join(out, file)), { recursive: true })
  fs.writeFileSync(path.join(out, file), text + '\n')
}

// Compiles one file with what it imports; any warning is a failure.
function compile(file, imports = []) {
  const read = (name) => ({ content: fs.readFileSync(path.join(__dirname, name), 'utf8') })
  const sources = Object.fromEntries([file, ...imports].map((name) => [name, read(name)]))
  const input = JSON.stringify({ language: 'Solidity', sources, settings })
  const output = JSON.parse(solc.compile(input))
  const problems = output.errors || []
  problems.forEach((problem) => console.error(problem.formattedMessage))
  if (problems.length) process.exit(1)
  return output.contracts[file]
}

const predeploys = []
for (const [name, address] of Object.entries(contracts)) {
  const { abi, evm } = compile(`${name}.sol`)[name]
  write(`chiral-payment/contracts/${name}.json`, {
    contract: name,
    compiler: solc.version(),
    evmVersion: settings.evmVersion,
    abi,
    bytecode: '0x' + evm.bytecode.object,
    deployedBytecode: '0x' + evm.deployedBytecode.object,
  })
  // For programs that want the code and no JSON, under the names that solc gives them.
  write(`chiral-payment/contracts/${name}.bin`, evm.bytecode.object)
  write(`chiral-payment/contracts/${name}.bin-runtime`, evm.deployedBytecode.object)
  predeploys.push({ name, address, code: '0x' + evm.deployedBytecode.object })
}
write('chiral-chain/src/spec/devnet-predeploys.json', predeploys)

// Code of the payees in tests, by name.
const payees = compile('testing/Payees.sol', ['BatchPay.sol', 'Channels.sol'])
const codes = Object.entries(payees).map(([name, { evm }]) => [name, '0x' + evm.deployedBytecode.object])
write('chiral-payment/contracts/testing/Payees.json', Object.fromEntries(codes))
