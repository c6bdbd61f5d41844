namespace Ublkback.Block;

/// <summary>An image that another program or guest uses.</summary>
public sealed class ImageInUseException : TargetException
{
    /// <inheritdoc/>
    public ImageInUseException(string problem)
        : base(problem)
    {
    }

    /// <inheritdoc/>
    public ImageInUseException(string problem, string remedy)
        : base(problem, remedy)
    {
    }
}
