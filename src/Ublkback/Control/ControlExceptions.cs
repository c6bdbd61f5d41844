using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>The daemon refuses a request; the message is the reply's error.</summary>
internal sealed class RefusedRequestException(string message) : CommandException(message);

/// <summary>The connection to the daemon closed before its reply was complete.</summary>
internal sealed class LostDaemonException(string message) : CommandException(message);

/// <summary>No daemon answers on the socket; the message says how to start it.</summary>
internal sealed class NoDaemonException(string message) : Exception(message);
