"""An example project for fedaq: activities from an accelerometer, each device with its own data."""
