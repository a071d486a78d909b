"""Everything that runs on a device: the runtime process, the control process, what they share."""
