using Ublkback.Block;

namespace Ublkback.Linux.Messages;

/// <summary>A message that is not of the protocol, or a reply that is an error; the message says which.</summary>
public sealed class RefusedMessageException : UserException
{
    /// <inheritdoc/>
    public RefusedMessageException(string problem)
        : base(problem)
    {
    }

    /// <inheritdoc/>
    public RefusedMessageException(string problem, string remedy, Exception? cause = null)
        : base(problem, remedy, cause)
    {
    }
}
