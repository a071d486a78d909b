"""`skerry server broker-follow`: keeps a Mosquitto on a machine of its own told by the server."""
