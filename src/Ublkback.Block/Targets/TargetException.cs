namespace Ublkback.Block;

/// <summary>A target that cannot be used. The message is for the person who wrote the target.</summary>
public class TargetException : UserException
{
    /// <inheritdoc/>
    public TargetException(string problem)
        : base(problem)
    {
    }

    /// <inheritdoc/>
    public TargetException(string problem, Exception? cause)
        : base(problem, cause)
    {
    }

    /// <inheritdoc/>
    public TargetException(string problem, string remedy)
        : base(problem, remedy)
    {
    }

    /// <inheritdoc/>
    public TargetException(string problem, string? remedy, Exception? cause)
        : base(problem, remedy, cause)
    {
    }
}
