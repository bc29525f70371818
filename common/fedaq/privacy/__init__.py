"""Secure aggregation: a server learns the sum of its clients' updates, and none of them.

The protocol of Bonawitz et al. (eprint 2017/281): each client adds to its codes a mask of its own
and one with each of its neighbours, which cancel in the sum; all are seeds that are shared out, so
that the sum comes out right without those who drop out. With many clients the neighbours are few,
as in SecAgg+ (Bell et al., eprint 2020/704).

Nothing here sends or receives. `member` is a client in one round, `unmasking` the server's part
after it; `keys`, `shares`, `neighbours`, `masks` and `layout` are what both stand on.
"""
