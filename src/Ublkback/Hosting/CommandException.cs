using Ublkback.Block;

namespace Ublkback.Hosting;

/// <summary>A command that failed; the message is the one line on standard error.</summary>
internal class CommandException : UserException
{
    public CommandException(string problem)
        : base(problem)
    {
    }

    public CommandException(string problem, Exception? cause)
        : base(problem, cause)
    {
    }

    public CommandException(string problem, string remedy)
        : base(problem, remedy)
    {
    }

    public CommandException(string problem, string? remedy, Exception? cause)
        : base(problem, remedy, cause)
    {
    }
}
