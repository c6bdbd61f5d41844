namespace Ublkback.Block;

/// <summary>An image that reports the state of its storage. Any thread.</summary>
public interface IImageHealth
{
    /// <summary>The reason why requests of the disk wait, for the administrator. Null if none waits.</summary>
    string? Trouble => null;

    /// <summary>
    /// True if acknowledged writes may be lost, because a flush failed. From then on every flush fails, also of an
    /// image that a successor opens in its place.
    /// </summary>
    bool HasLostWrites => false;
}
