using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>The daemon refuses a request; the message is the reply's error.</summary>
internal sealed class RefusedRequestException : CommandException
{
    public RefusedRequestException(string problem)
        : base(problem)
    {
    }

    public RefusedRequestException(string problem, Exception cause)
        : base(problem, cause)
    {
    }

    public RefusedRequestException(string problem, string remedy, Exception? cause = null)
        : base(problem, remedy, cause)
    {
    }
}

/// <summary>The connection to the daemon closed before its reply was complete.</summary>
internal sealed class LostDaemonException(string message, Exception? cause = null)
    : CommandException(message, cause);

/// <summary>No daemon answers on the socket; the message says how to start it.</summary>
internal sealed class NoDaemonException(string problem, string remedy, Exception cause)
    : UserException(problem, remedy, cause);
