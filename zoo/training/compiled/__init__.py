"""A compiled engine for small networks on a CPU: one network at a time stays in cache while it trains."""
