"""The control process: reconciles the device with its assignment and delivers its telemetry."""
