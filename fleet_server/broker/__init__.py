"""The embedded MQTT broker: amqtt behind a gate that checks every packet before it."""
