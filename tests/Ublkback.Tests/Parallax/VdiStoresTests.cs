using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Stores;

namespace Ublkback.Tests.Parallax;

/// <summary>What people write where a store is wanted. No cluster is asked.</summary>
public sealed class VdiStoresTests
{
    [TestCase("tape:0", "is of no kind that this program knows")]
    [TestCase("rados:", "no pool is given")]
    [TestCase("rados:vdi?pool=a", "unknown option pool")]
    [TestCase("rados:vdi?conf", "unknown option conf")]
    [TestCase("rados:vdi?conf=ceph.conf", "is not an absolute path")]
    public void A_mistake_is_told(string text, string expected) =>
        Assert.That(Assert.Throws<TargetException>(() => VdiStoreFactory.Open(text))!.Message, Does.Contain(expected));
}
