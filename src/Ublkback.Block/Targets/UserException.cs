namespace Ublkback.Block;

/// <summary>
/// An error that a person can fix: what is wrong, and how to fix it. Every such error derives from this class and is
/// caught at the doors of the program only: the command line, the sockets, and the life of one disk. Each shows
/// <see cref="Exception.Message"/>, which is one sentence: <c>PROBLEM: REMEDY</c>.
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

    /// <summary>What is wrong, with the value that is.</summary>
    public string Problem { get; }

    /// <summary>The command or the change that fixes it; null if the problem says enough.</summary>
    public string? Remedy { get; }
}
