using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>The connection to the daemon closed before its reply was complete.</summary>
internal sealed class LostDaemonException(string message, Exception? cause = null)
    : CommandException(message, cause);

/// <summary>No daemon answers on the socket; the message says how to start it.</summary>
internal sealed class NoDaemonException(string problem, string remedy, Exception cause)
    : UserException(problem, remedy, cause);
