"""The ledger of theorems: one module per paper, every statement with its falsifier."""
