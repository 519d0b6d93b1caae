"""What can go wrong between a device and a frame.

    DeviceError
    ├── DeviceBusy           somebody else uses it
    ├── DeviceRemoved        it is gone: unplugged, switched off, card pulled
    ├── DeviceProtocolError  it answers what its protocol does not allow
    ├── DeviceUntrusted      its signature, certificate or hash chain does not hold
    ├── DeviceStuck          it did not answer in time; its process was ended and will be started anew
    └── DeviceUnavailable    its library, service or permission is missing on this machine

That a person did not touch the sensor, or should try again, is no error: see `devices.device`.
"""


class DeviceError(Exception):
    """Base of every fault of the devices stage."""


class DeviceBusy(DeviceError):
    """Another program, or another capture, has the device; to be tried again."""


class DeviceRemoved(DeviceError):
    """The device, or the card in it, is no longer there."""


class DeviceProtocolError(DeviceError):
    """The device answers what its protocol does not allow; its answer is not used."""


class DeviceUntrusted(DeviceError):
    """A signature, a certificate or a hash chain does not hold; what was captured is not used."""


class DeviceStuck(DeviceError):
    """The device did not answer in time; its process was ended, and the next call starts another."""


class DeviceUnavailable(DeviceError):
    """A library, a service or a permission is missing; the message says what to install or allow."""
