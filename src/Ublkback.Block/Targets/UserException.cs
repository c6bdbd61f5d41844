namespace Ublkback.Block;

/// <summary>
/// An error that a user can fix. <see cref="Exception.Message"/> is one sentence: <c>PROBLEM: REMEDY</c>. The command
/// line, the sockets and the life of one disk show it. Code in between may add context, and then keeps the cause.
/// </summary>
public class UserException : Exception
{
    /// <summary>Creates an error whose remedy is plain from the problem.</summary>
    public UserException(string problem)
        : base(problem) => Problem = problem;

    /// <summary>Creates an error with the exception that caused it.</summary>
    public UserException(string problem, Exception? cause)
        : base(problem, cause) => Problem = problem;

    /// <summary>Creates an error with its remedy.</summary>
    public UserException(string problem, string remedy)
        : this(problem, remedy, null)
    {
    }

    /// <summary>Creates an error with its remedy and the exception that caused it, where there are such.</summary>
    public UserException(string problem, string? remedy, Exception? cause)
        : base(remedy is null ? problem : $"{problem}: {remedy}", cause)
    {
        Problem = problem;
        Remedy = remedy;
    }

    /// <summary>The problem, with the offending value.</summary>
    public string Problem { get; }

    /// <summary>The command or the change that fixes it; null if the problem says enough.</summary>
    public string? Remedy { get; }
}
