namespace Ublkback.Block;

/// <summary>An image that somebody else uses.</summary>
public sealed class ImageInUseException(string message) : TargetException(message);
