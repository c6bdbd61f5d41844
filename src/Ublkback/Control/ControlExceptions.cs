using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>The connection to the daemon closed before its reply was complete.</summary>
internal sealed class LostDaemonException(string message, Exception? cause = null)
    : CommandException(message, cause);

/// <summary>No daemon answers on the socket; the message says how to start it.</summary>
/// <param name="problem">What is wrong.</param>
/// <param name="remedy">How to fix it.</param>
/// <param name="isAbsent">False if a daemon may run, and this user may not connect to it.</param>
/// <param name="cause">The error of the socket.</param>
internal sealed class NoDaemonException(string problem, string remedy, bool isAbsent, Exception cause)
    : UserException(problem, remedy, cause)
{
    /// <summary>False if a daemon may run, and this user may not connect to it.</summary>
    public bool IsAbsent { get; } = isAbsent;
}
