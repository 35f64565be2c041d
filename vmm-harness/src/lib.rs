//! A small virtual machine monitor that boots guests on the taps of the switch.
