"""Everything that trains more than once: sweep, ablation, baselines, reproduction."""
