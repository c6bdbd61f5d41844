namespace Ublkback.Block;

/// <summary>
/// A target that cannot be used. The message is one sentence for the person who wrote the target: what is wrong and how
/// to mend it.
/// </summary>
public class TargetException : Exception
{
    /// <summary>Makes an exception with the sentence to show.</summary>
    public TargetException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception with the sentence to show and its cause.</summary>
    public TargetException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
