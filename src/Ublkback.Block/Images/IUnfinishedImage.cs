namespace Ublkback.Block;

/// <summary>
/// An image that knows whether the copy that fills it has ended: until then it is opened only to go on with that. Such
/// an image is created with <see cref="NewImage.IsUnfinished"/>.
/// </summary>
public interface IUnfinishedImage : IBlockImage
{
    /// <summary>Notes durably that all is there, with what was written until now. On its loop.</summary>
    /// <exception cref="TargetException">It could not be noted.</exception>
    Task FinishAsync();
}
