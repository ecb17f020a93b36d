"""The words of clients and log: operations, their fields and bounds, frames, batches."""
