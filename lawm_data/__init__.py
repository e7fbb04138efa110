"""lawm_data makes datasets for latent-action world models: collect, import, slice, label, shard, publish."""

__version__ = "0.1.0"
