"""Shares of processor time by kind of work, from folded stacks: `python3 shares.py STACKS.folded`.

A sample belongs to the innermost frame that a pattern matches, so that a hash computed for a witness is hashing.
"""

import re
import sys

KINDS = [
    ("hashing (trees, challenges, grinding)", r"poseidon|merkle|sponge|^compress$|hash_column|\bgrind|fri_proof_of_work|challenger"),
    ("transforms", r"::transform|butterflies|::passes|\bfft|::lde|coset_fft|ifft|forward_from|forward_block|apply_from"),
    ("constraints and quotients", r"quotient|eval_unfiltered|evaluate_gate|::interpreter|vanishing|compute_filter|permutation|partial_products|cpu::sums|Constrain"),
    ("witness", r"circuit::witness|iop::witness|iop::generator|generate_partial|(?<!back)trace::|main_columns|set_target|SimpleGenerator"),
    ("openings and FRI", r"cpu::fri|cpu::wide|plonky2::fri|polynomial::|PolynomialCoeffs|OpeningSet"),
    ("randomness of the blinding", r"getrandom|OsRng|get_random_bytes"),
]


def kind_of(stack):
    for frame in reversed(stack):
        for kind, pattern in KINDS:
            if re.search(pattern, frame):
                return kind
    return "other"


def main(path):
    totals = {}
    for line in open(path, encoding="utf-8"):
        stack, samples = line.rsplit(" ", 1)
        kind = kind_of(stack.split(";"))
        totals[kind] = totals.get(kind, 0) + int(samples)
    for kind in [kind for kind, _ in KINDS] + ["other"]:
        print(f"{100 * totals.get(kind, 0) / sum(totals.values()):5.1f} %  {kind}")


main(sys.argv[1])
