"""The wire contract, generated from proto/zkinfer/v1 by generate.sh."""
