//! Holds nothing: the tests of the tree are in `tests/tree`, those of the whole system in `tests/system`.
