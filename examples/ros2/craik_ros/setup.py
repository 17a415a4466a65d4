"""How colcon installs the package; craik itself is installed with pip."""

from setuptools import setup

setup(
    name="craik_ros",
    version="0.1.0",
    packages=["craik_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/craik_ros"]),
        ("share/craik_ros", ["package.xml"]),
    ],
    install_requires=["craik"],
    license="Apache-2.0",
    entry_points={"console_scripts": ["planner = craik_ros.node:main"]},
)
