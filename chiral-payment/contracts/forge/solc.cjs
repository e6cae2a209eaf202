// solc from npm in the form that forge asks for: it answers --version, and compiles standard
// JSON from its input. CHIRAL_SOLC names the package's folder.
'use strict'
const solc = require(process.env.CHIRAL_SOLC)

if (process.argv.includes('--version')) {
  const version = solc.version().replace('Emscripten.clang', 'Linux.g++')
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${version}`)
} else {
  const input = require('fs').readFileSync(0, 'utf8')
  process.stdout.write(solc.compile(input))
}
