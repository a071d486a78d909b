"""`skerry agent bench`: what each variant of a model costs on each accelerator of this device."""
