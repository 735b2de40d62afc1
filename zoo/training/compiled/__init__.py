"""The compiled engine: small networks on a CPU, one at a time, each in cache through a whole epoch.

Read it in this order: `training` (the loop over networks and epochs), `lowering` (from a module to a `program`) and
`checking` (whether both have the same gradient), `memory` and `state` (the arrays), `kernels` (an epoch), `layers`,
`loss` and `updates` (what a step does), `products` and `functions` (arithmetic), `lanes` (sixteen numbers as one
value). `jit` says how functions are compiled.

Activations lie in blocks of sixteen examples, which are one vector; a block of a small network, its weights and its
moments stay in the processor's caches. Sums have an order that the source fixes, multiplications and additions are
fused only where it says so, and exp, log and tanh are the package's own. So all processors give the same bits.
"""
