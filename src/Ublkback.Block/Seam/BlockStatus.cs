namespace Ublkback.Block;

/// <summary>
/// How a <see cref="BlockRequest"/> ended. A closed set: anything unexpected is an <see cref="IoError"/>.
/// </summary>
public enum BlockStatus : byte
{
    /// <summary>All that was asked has been done.</summary>
    Okay,

    /// <summary>The image could not do it: a media error, the end of the file, a refused access.</summary>
    IoError,

    /// <summary>The storage below the image is full.</summary>
    NoSpace,

    /// <summary>The image does not know this operation.</summary>
    Unsupported,
}
