"""Networks: a torch leaf that knows tensors only. Every module holds N models side by side (the seeds of a run)."""
