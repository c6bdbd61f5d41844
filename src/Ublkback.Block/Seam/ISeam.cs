namespace Ublkback.Block;

/// <summary>Reports on behalf of a <see cref="SeamCall"/> that the layer below a seam broke a rule.</summary>
internal interface ISeam
{
    /// <summary>The layer below threw an exception instead of returning a status.</summary>
    BlockStatus Blame(Exception failure);

    /// <summary>The layer below answered a request while a request that it passed on was still in flight.</summary>
    void BlameEarlyAnswer();
}
