"""What crosses a wire: frames and the schema of messages. Pure: no sockets, no clocks."""
