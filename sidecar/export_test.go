package sidecar

// Drivers are those of this system, the default first.
var Drivers = drivers
