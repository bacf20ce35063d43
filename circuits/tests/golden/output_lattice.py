#!/usr/bin/env python3
"""Finds a small output difference that a ledger under a known gamma' cannot see (PITFALLS 4).

The differences d with sum_i gamma'^i d_i = 0 in K = F[phi]/(phi^2 - 7), F of order p, are a lattice of dimension n and
determinant p^2, so that it has vectors of size about sqrt(n/17) * p^(2/n): a few units for n = 32. LLL (integral, Cohen's
algorithm 2.6.7, delta 3/4) finds one. Prints the golden file; needs nothing but Python.

    python3 circuits/tests/golden/output_lattice.py GAMMA0 GAMMA1 N > circuits/tests/golden/output_lattice.txt
"""
import sys

P = 2**64 - 2**32 + 1


def multiply(a, b):
    return ((a[0] * b[0] + 7 * a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P)


def powers(gamma, n):
    result = [(1, 0)]
    while len(result) < n:
        result.append(multiply(result[-1], gamma))
    return result


def relation_basis(gamma, n):
    """Basis of the lattice: gamma'^i = a + b*gamma' since gamma' is not in F, hence e_i - a*e_0 - b*e_1; and p*e_0, p*e_1."""
    inverse = pow(gamma[1], -1, P)
    basis = []
    for i, (c0, c1) in enumerate(powers(gamma, n)):
        row = [0] * n
        if i < 2:
            row[i] = P
        else:
            b = c1 * inverse % P
            row[0], row[1], row[i] = -((c0 - b * gamma[0]) % P), -b, 1
        basis.append(row)
    return basis


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def lll(basis):
    """Integral LLL: lambda[i][j] = d_j * mu_ij, d_i the determinants of the leading Gram matrices."""
    n = len(basis)
    lam = [[0] * n for _ in range(n)]
    d = [1] + [0] * n

    def orthogonalize(k):
        for j in range(k + 1):
            u = dot(basis[k], basis[j])
            for i in range(j):
                u = (d[i + 1] * u - lam[k][i] * lam[j][i]) // d[i]
            if j < k:
                lam[k][j] = u
            else:
                d[k + 1] = u

    def reduce(k, l):
        if 2 * abs(lam[k][l]) <= d[l + 1]:
            return
        q = (2 * lam[k][l] + d[l + 1]) // (2 * d[l + 1])
        basis[k] = [x - q * y for x, y in zip(basis[k], basis[l])]
        lam[k][l] -= q * d[l + 1]
        for i in range(l):
            lam[k][i] -= q * lam[l][i]

    def swap(k, k_max):
        basis[k], basis[k - 1] = basis[k - 1], basis[k]
        for j in range(k - 1):
            lam[k][j], lam[k - 1][j] = lam[k - 1][j], lam[k][j]
        m = lam[k][k - 1]
        b = (d[k - 1] * d[k + 1] + m * m) // d[k]
        for i in range(k + 1, k_max + 1):
            t = lam[i][k]
            lam[i][k] = (d[k + 1] * lam[i][k - 1] - m * t) // d[k]
            lam[i][k - 1] = (b * t + m * lam[i][k]) // d[k + 1]
        d[k] = b

    k, k_max = 1, 0
    orthogonalize(0)
    while k < n:
        if k > k_max:
            k_max = k
            orthogonalize(k)
        reduce(k, k - 1)
        if 4 * (d[k + 1] * d[k - 1] + lam[k][k - 1] ** 2) < 3 * d[k] * d[k]:
            swap(k, k_max)
            k = max(1, k - 1)
        else:
            for l in range(k - 2, -1, -1):
                reduce(k, l)
            k += 1
    return basis


def main():
    gamma, n = (int(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3])
    weights = powers(gamma, n)
    reduced = lll(relation_basis(gamma, n))
    shortest = min(reduced, key=lambda row: dot(row, row))
    for coordinate in (0, 1):
        assert sum(x * w[coordinate] for x, w in zip(shortest, weights)) % P == 0
    print("# A difference of outputs that a ledger under gamma' does not see: sum of gamma'^i * d_i = 0 in K.")
    print(f"# Made by: python3 circuits/tests/golden/output_lattice.py {gamma[0]} {gamma[1]} {n}")
    print("gamma_prime", *gamma)
    print("difference", *shortest)


if __name__ == "__main__":
    main()
